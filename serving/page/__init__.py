"""The web page: `python app.py --mode web`."""
