"""Read and write media files: the only layer that uses codecs.

images      probe, ImageSource, read_pixels, and the names of the modules below that callers need
formats     what each format can hold, and telling formats apart by content
opening     opening a file safely: never a folder, a pipe or a device
listing     the image files of a folder
metadata    EXIF, XMP, ICC and the rest, cleaned so that they stay true after upscaling
decoder     what a decoder is, and what it may assume
png, tiff, gif, pillow    one decoder each; png and gif also write
plan        the output format, and what will be lost
sink        ImageSink: atomic, verified writing
encoders    one streaming writer per format
verify      is the written file what was promised?
"""
