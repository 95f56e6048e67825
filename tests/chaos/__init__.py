"""`make chaos`: real servers under verified traffic, while processes, disks, files, clocks and clients fail."""
