"""One module a noun; `app.py` lists what they offer."""
