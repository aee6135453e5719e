"""Reading, playing and writing videos: the parts behind `video_processor`."""
