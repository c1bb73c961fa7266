#!lua flags=allow-oom
-- pause: nothing leaves of a bot, of a lane or at all, until somebody resumes it.
--
-- KEYS  1 front door
-- ARGV  1 scope: "bot", "bot:chat" or *   2 reason, a line
-- include: keys, aliases

redis.call('HSET', PAUSED, 'hand ' .. canonical(ARGV[1]), string.format('%.0f %s', wall, ARGV[2]))
