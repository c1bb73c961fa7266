#!lua flags=allow-oom
-- cancel_group: none of a group that is not in flight is sent any more; each is cleared when it is the head (grant.lua).
--
-- KEYS  1 front door
-- ARGV  1 group
-- include: keys, bell

redis.call('HSET', group_key(ARGV[1]), '#cancelled', 1)
redis.call('EXPIRE', group_key(ARGV[1]), 30 * 24 * 3600)
ring()
