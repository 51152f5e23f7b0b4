"""Why a topic is as it is: all that is known of it from the venue to its readers, and the most likely cause.

* `venue`: what the parts of one venue know of a topic; `assembly`: that, and what the rest of the daemon knows.
* `verdict`: the most likely cause, from these facts alone.
"""
