"""MuseTalk 1.5 (github.com/TMElyralab/MuseTalk): the public network, in our own code."""
