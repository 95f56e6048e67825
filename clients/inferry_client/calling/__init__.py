"""Which server a call goes to, when it is made again, and what is asked together."""
