#!lua flags=allow-oom
-- cancel_group: see recall_group.lua.
--
-- KEYS  1 front door
-- ARGV  1 group
-- include: keys, bell, recall_group

recall_group(ARGV[1])
ring()
