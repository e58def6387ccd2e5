"""The HTTP server: a web page and a JSON API, with requests batched into one search."""
