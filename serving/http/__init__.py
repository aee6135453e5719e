"""The HTTP API: `python app.py --mode api`; and how forms come in, which the web page does the same way."""
