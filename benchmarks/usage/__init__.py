"""Five common jobs as scripts, ours beside those of other libraries; `__main__` runs them."""
