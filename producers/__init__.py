"""The built-in producers, each a module, or a package where one is too long; they import nothing but the plugin API."""
