"""Asks a schema registry: METHOD URL BODY. Prints its answer."""

import sys
import urllib.request

method, url, body = sys.argv[1:4]
request = urllib.request.Request(
    url, data=body.encode() or None, method=method, headers={"Content-Type": "application/json"}
)
with urllib.request.urlopen(request, timeout=30) as answer:
    print(answer.read().decode())
