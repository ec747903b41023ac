"""`upframe watch`: every picture and video that comes into a folder is made once, by the queue of the service."""
