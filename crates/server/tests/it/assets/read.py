"""Reads a stream with a parser that is not tidings' own: read.py PARSER URL COUNT. Prints [[id, event], ...]."""

import json
import sys

import httpx
import httpx_sse
import sseclient

parser, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
read = []
with httpx.Client(timeout=30) as client:
    if parser == "httpx-sse":
        with httpx_sse.connect_sse(client, "GET", url) as source:
            for event in source.iter_sse():
                if event.event == "message":
                    read.append([event.id, json.loads(event.data)])
                if len(read) == count:
                    break
    else:
        with client.stream("GET", url) as response:
            for event in sseclient.SSEClient(response.iter_bytes()).events():
                if event.event == "message":
                    read.append([event.id, json.loads(event.data)])
                if len(read) == count:
                    break
print(json.dumps(read))
