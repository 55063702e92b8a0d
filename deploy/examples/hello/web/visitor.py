"""Ask the web service for its page every few seconds, by its Compose name."""

import os
import time
import urllib.error
import urllib.request

URL = os.environ.get("URL", "http://web:8080/")

while True:
    try:
        with urllib.request.urlopen(URL, timeout=5) as answer:
            print(answer.read().decode().splitlines()[-1], flush=True)
    except (urllib.error.URLError, OSError) as error:
        print(f"{URL}: {error}", flush=True)
    time.sleep(5)
