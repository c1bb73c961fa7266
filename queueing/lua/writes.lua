-- writes: fields of hashes that are set or deleted, all or none.

-- args, first, many: of the writes among these, five arguments for each: key, field, value with = before it or '' to
-- delete it, what was seen there (* anything, - nothing, or the sha1 of the value), s after which the whole hash goes or ''.
local writes = {} -- one name: a script has room for 200
do
  local function each(args, first, many, action)
    for i = 1, many do action(i, unpack(args, first + 5 * (i - 1), first + 5 * i - 1)) end
  end

  -- → the number of each write in whose field is something else, and what there is, or false
  function writes.conflicts(args, first, many)
    local found = {}
    each(args, first, many, function(number, key, field, _, was)
      local is = was ~= '*' and redis.call('HGET', key, field)
      if was == '*' or (is and redis.sha1hex(is) or '-') == was then return end
      found[#found + 1] = number
      found[#found + 1] = is
    end)
    return found
  end

  function writes.apply(args, first, many)
    each(args, first, many, function(_, key, field, value, _, ttl)
      if value == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, string.sub(value, 2)) end
      if ttl ~= '' then redis.call('EXPIRE', key, ttl) end
    end)
  end
end
