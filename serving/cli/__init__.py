"""The command line: `python app.py --mode cli`."""
