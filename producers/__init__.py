"""The built-in producers, one module each; they import nothing of Siftbell but the plugin API."""
