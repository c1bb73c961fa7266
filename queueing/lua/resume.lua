#!lua flags=allow-oom
-- resume: ends what `pause` began. A flood wait of the same scope goes on.
--
-- KEYS  1 front door
-- ARGV  1 scope: "bot", "bot:chat" or *
-- include: keys, limits, bell

local scope = ARGV[1]
redis.call('HDEL', PAUSED, 'hand ' .. scope)
-- Whatever waited for this is looked at again; where something else is in the way, it finds that then.
if scope == '*' then
  for _, bot in ipairs(redis.call('ZRANGEBYSCORE', BOTS_DUE, FOR_EVER, '+inf', 'LIMIT', 0, 10000)) do
    redis.call('ZADD', BOTS_DUE, 'XX', now, bot)
  end
else
  redis.call('ZADD', string.find(scope, ':', 1, true) and DUE or BOTS_DUE, 'XX', now, scope)
end
ring()
