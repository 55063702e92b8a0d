#!/usr/bin/env bash
# The wire contract: generate its Python, and check it. tools/proto.sh generate|fresh|lint|breaking
#
# The generator is old on purpose and has an environment of its own, .venv-proto: code made by
# grpcio-tools 1.78 loads on every grpcio and protobuf since, code made by a newer one refuses
# older runtimes; but grpcio-tools 1.78 itself holds protobuf below 7, and in one environment with
# everything else it would keep our tests on a version that no user gets.
# buf comes from npm, the one index that carries it, and lives in .venv-proto too.
set -euo pipefail
cd "$(dirname "$0")/.."

BUF_VERSION=1.75.0
generated=homeport/v1
environment=.venv-proto

need_generator() {
  local stamp=$environment/.installed-proto
  if [ ! -e "$stamp" ] || [ requirements-proto.lock -nt "$stamp" ]; then
    tools/venv.sh "$environment" requirements-proto.lock
    touch "$stamp"
  fi
}

need_buf() {
  buf=$environment/buf/node_modules/.bin/buf
  if [ "$("$buf" --version 2>/dev/null)" = "$BUF_VERSION" ]; then return; fi
  command -v npm >/dev/null || tests/setup.sh npm
  echo "installing buf $BUF_VERSION into $environment"
  mkdir -p "$environment/buf"
  npm install --prefix "$environment/buf" --no-save --no-package-lock --no-audit --no-fund \
    --loglevel=error "@bufbuild/buf@$BUF_VERSION" >/dev/null
}

generate_into() {   # generate_into DIRECTORY: writes DIRECTORY/homeport/v1/*_pb2*
  need_generator
  PATH="$PWD/$environment/bin:$PATH" "$environment/bin/python" -m grpc_tools.protoc \
    --proto_path=proto --python_out="$1" --grpc_python_out="$1" \
    --mypy_out="quiet:$1" --mypy_grpc_out="quiet,only_async:$1" \
    proto/homeport/v1/*.proto
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case ${1:-} in
  generate)
    generate_into "$scratch"
    # What a deleted or renamed .proto left behind goes too.
    rm -f $generated/*_pb2*.py $generated/*_pb2*.pyi
    cp "$scratch/$generated"/*_pb2*.py* $generated/
    ;;
  fresh)
    generate_into "$scratch"
    cp $generated/__init__.py "$scratch/$generated/"
    if ! diff -ru --exclude=__pycache__ $generated "$scratch/$generated"; then
      echo "$generated is not what proto/ says: run \`make proto\` and commit the result." >&2
      exit 1
    fi
    ;;
  lint)
    need_buf
    "$buf" lint proto
    ;;
  breaking)
    # Against the last release; before the first one against the commit before this one. The base
    # is unpacked from git, so a shallow clone (which may have neither) has nothing to compare.
    base=${BUF_BASE-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || echo HEAD~1)}
    if [ -z "$base" ] || ! git cat-file -e "$base:proto/buf.yaml" 2>/dev/null; then
      echo "buf breaking: nothing to compare with (no ${base:-base} that has proto/)"
      exit 0
    fi
    need_buf
    git archive "$base" proto | tar -x -C "$scratch"
    "$buf" breaking proto --against "$scratch/proto"
    ;;
  *)
    echo "usage: tools/proto.sh generate|fresh|lint|breaking" >&2
    exit 2
    ;;
esac
