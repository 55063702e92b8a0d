"""`x-homeport: {device: …}`: devices by what they are, and by how much of them a task takes."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.compose import quantities
from homeport.compose.view import View
from homeport.devices import WHOLE_MILLIS
from homeport.spec import DeviceNeed

COUNT_MAX = 1_000
_BY_NAME = ("path", "id", "usb")
_WHAT = (*_BY_NAME, "kind", "vendor", "model")


def devices(ours: View | None) -> tuple[DeviceNeed, ...]:
    """One device or a list of them; what is wrong is in the report."""
    found = ours.at("device") if ours is not None else None
    if found is None:
        return ()
    needs: list[DeviceNeed] = []
    for item in found.items() if found.is_list else [found]:
        for need in _read(item):
            if need.name and need.name in (each.name for each in needs):
                item.refuse(f"takes {need.name[:60]} a second time", "Remove one of the two")
            needs.append(need)
    return tuple(needs)


def _read(item: View) -> Iterator[DeviceNeed]:
    if not item.is_map:
        text = item.as_text()
        if text:
            yield DeviceNeed(name=text) if text.startswith(("/", "usb:")) else DeviceNeed(kind=text)
        return
    given = [key for key in _WHAT if item.at(key) is not None]
    by_name = [key for key in given if key in _BY_NAME]
    if not given:
        item.refuse("says nothing of the device", f"Give one of {', '.join(_WHAT)}")
        return
    if len(by_name) > 1:
        item.refuse(f"names one device by {' and '.join(by_name)}", "Keep one of them")
        return
    name = item.text("path") or item.text("id")
    if item.at("path") is not None and not name.startswith("/"):
        item.refuse(f"{name[:60]!r} is not the path of a device, such as /dev/ttyUSB0")
        return
    if usb := item.text("usb"):
        name = f"usb:{usb.lower()}"
    count = _count(item)
    if count != 1 and ("path" in given or "id" in given):
        item.refuse("is one device, and cannot be had several times", "Remove `count`")
    target = item.text("target")
    if target and (count != 1 or not target.startswith("/")):
        item.refuse("`target` is the absolute path of a single device in the container")
    yield DeviceNeed(
        name=name,
        kind=item.text("kind"),
        vendor=item.text("vendor").lower(),
        models=item.texts("model", or_one=True),
        count=count,
        share_millis=_share_millis(item),
        target=target,
    )


def _count(item: View) -> int:
    found = item.at("count")
    if found is None:
        return 1
    if found.as_printed() == "all":
        return -1
    return found.read(lambda text: quantities.whole(text, 1, COUNT_MAX), 1)


def _share_millis(item: View) -> int:
    share, shared = item.at("share"), item.flag("shared")
    if share is None:
        return 0 if shared else WHOLE_MILLIS
    if shared:
        share.refuse(
            "cannot be given together with `shared: true`, which takes no counted share",
            "Remove one of the two",
        )
    part = share.read(lambda text: quantities.fraction(text, 0.001, 1), 1.0)
    return round(part * WHOLE_MILLIS)
