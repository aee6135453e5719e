"""Jobs that survive a restart, and the processes that do them: `python app.py --mode worker`."""
