"""Students taught by a teacher's maps: recipes, sources, loop, figures."""
