-- The writing of names, see aliases.lua.

local forget_alias, write_alias
do -- a script has room for 200 local names
  local ALIASES_MOST = 100000 -- the oldest are forgotten
  local NAMES_MOST = 20       -- other names of one chat; likewise

  local function names_of(lane) return 'names ' .. lane end

  function forget_alias(lane)
    local bot, name = string.match(lane, '^([^:]*):(.*)$')
    local chat = redis.call('HGET', ALIASES, lane)
    redis.call('HDEL', ALIASES, lane)
    redis.call('ZREM', ALIASES_INDEX, lane)
    if not chat then return end
    local field, kept = names_of(bot .. ':' .. chat), {}
    for other in string.gmatch(redis.call('HGET', ALIASES, field) or '', '%S+') do
      if other ~= name then kept[#kept + 1] = other end
    end
    if #kept > 0 then
      redis.call('HSET', ALIASES, field, table.concat(kept, ' '))
    else
      redis.call('HDEL', ALIASES, field)
    end
  end

  -- from, and whatever was another name of it, stands for `to`.
  function write_alias(from, to)
    local bot, chat = string.match(to, '^([^:]*):(.*)$')
    local names = {}
    for _, lane in ipairs({ to, from }) do
      for name in string.gmatch(redis.call('HGET', ALIASES, names_of(lane)) or '', '%S+') do names[#names + 1] = name end
    end
    names[#names + 1] = string.match(from, ':(.*)$')
    while #names > NAMES_MOST do forget_alias(bot .. ':' .. table.remove(names, 1)) end
    for _, name in ipairs(names) do
      redis.call('HSET', ALIASES, bot .. ':' .. name, chat)
      redis.call('ZADD', ALIASES_INDEX, now, bot .. ':' .. name)
    end
    redis.call('HDEL', ALIASES, names_of(from))
    redis.call('HSET', ALIASES, names_of(to), table.concat(names, ' '))
    any_alias = true
    if redis.call('ZCARD', ALIASES_INDEX) > ALIASES_MOST then
      for _, lane in ipairs(redis.call('ZRANGE', ALIASES_INDEX, 0, 9)) do forget_alias(lane) end
    end
  end
end
