"""What a run leaves in its folder, and how it is stopped and goes on. Nothing here knows how a model learns."""
