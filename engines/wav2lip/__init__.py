"""Wav2Lip (github.com/Rudrabha/Wav2Lip): the public network and its larger variants, in our own code."""
