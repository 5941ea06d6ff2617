"""Lower precision: presets with gates, int8, and the quality that is kept."""
