"""The packages in here are installed by the tests; pytest has nothing to collect in them."""

collect_ignore_glob = ["waist_plugin/*", "broken_plugin/*"]
