"""`make fuzz`: seeded, bounded attacks on everything that parses what strangers wrote."""
