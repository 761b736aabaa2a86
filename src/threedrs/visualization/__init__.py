"""Images of scenes, boxes and features, for reports and for the terminal."""
