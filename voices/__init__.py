"""Engines that turn text into speech, behind one interface (`voices.base`)."""
