"""Plan and render one video: index, segments, work folder, join and verify."""
