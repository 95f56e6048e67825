"""`inferry sync`: a model repository copied out of an object store; a server beside the copy sees whole versions."""
