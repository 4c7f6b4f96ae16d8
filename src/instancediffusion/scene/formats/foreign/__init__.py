"""Scene files of other programs: annotation tools, layout planners, and what is known by name only."""
