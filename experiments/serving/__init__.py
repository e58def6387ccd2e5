"""A trained model behind HTTP: a page, a JSON API, one search for requests that come together."""
