"""Files that appear whole or not at all, and stores read with every byte checked."""
