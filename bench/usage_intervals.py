"""A ledger with many usage intervals, and reports of it to measure."""

import contextlib
import pathlib
import sqlite3

FILL = """
INSERT INTO usage_closed (kind, driver, volume, owner, container, framework, role, principal, user, size_bytes, start_wall,
                          duration, labels, volume_type)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :n),
     r AS (SELECT i, (i * 2654435761) % 4294967296 AS h, i % 10 < 8 AS task FROM n)
SELECT CASE WHEN task THEN 0 WHEN i % 10 = 8 THEN 1 ELSE 2 END,
       CASE h % 2000 % 4 WHEN 0 THEN 'local' ELSE 'rexray' END,
       'customer-data-' || (h % 2000),
       CASE WHEN task THEN '/var/lib/mesos' ELSE '' END,
       CASE WHEN task THEN printf('%08x-5a54-4768-8000-%012x', h, i) ELSE '' END,
       CASE WHEN task THEN 'd9e29a37-4b8f-4d9e-8c6e-framework-000' || (h % 5) ELSE '' END,
       CASE WHEN task THEN 'role-' || (h / 7 % 20) ELSE '' END,
       CASE WHEN task THEN 'team-' || (h / 7 % 40) ELSE '' END,
       CASE WHEN task THEN 'user' || (h % 10) ELSE '' END,
       (1 + h % 500) << 30,
       1750000000000000000 + i * (15552000000000000 / :n),
       h * 20000,
       CASE WHEN task THEN '{"team":"team-' || (h / 7 % 40) || '","tier":"web"}' ELSE '' END,
       CASE h % 4 WHEN 0 THEN '' WHEN 1 THEN 'io2' ELSE 'gp3' END
FROM r
"""
PRICES = pathlib.Path(__file__).resolve().parent.parent / "examples" / "prices.toml"
REPORTS = (["--by", "role"], ["--by", "volume,day"], ["--by", "role", "--since", "2025-12-01"], ["--by", "role,hour"],
           ["--by", "label:team"], ["--by", "role", "--prices", str(PRICES), "--format", "csv"])



def fill(state_db, count):
    with contextlib.closing(sqlite3.connect(state_db)) as ledger:
        ledger.execute("PRAGMA synchronous=OFF")
        with ledger:
            ledger.execute(FILL, {"n": count})
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
