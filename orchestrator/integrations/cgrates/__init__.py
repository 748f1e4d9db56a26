"""CGRateS: rating and billing of calls (`services: cgrates`).

charges.py      requests and answers of its sessions as JSON values: pure
cgr_json.py     JSON-RPC objects back to back in a stream: pure
cgr_link.py     the connection: requests out, answers and callbacks in
cgr_service.py  the service: performs what `charge` asks for, answers callbacks
"""
