"""What a run will cost before it starts: GPU memory, time, disk, a whole cluster."""
