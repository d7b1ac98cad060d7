"""Why a network gave a class: tubes, pyramids, and whether to believe them."""
