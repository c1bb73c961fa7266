#!lua flags=allow-oom
-- pause: nothing leaves of a bot, of a lane or at all, until somebody resumes it.
--
-- KEYS  1 front door
-- ARGV  1 scope: "bot", "bot:chat" or *   2 reason, a line
-- include: keys

redis.call('HSET', PAUSED, 'hand ' .. ARGV[1], string.format('%.0f %s', wall, ARGV[2]))
