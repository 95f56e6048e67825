"""What every command shares: option types, output for people and programs."""
