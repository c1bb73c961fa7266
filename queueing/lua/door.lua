-- door: messages of our own producers come to the doors of the queue.

-- first, last: their arguments in ARGV. Of each: its element without the opening brace, and what is to be known of it
-- before it is taken. '': nothing, and it comes to the front door; b: nothing, but it comes to the bulk door of its bot,
-- which follows; m: seven more follow: id, marks (t: tracked, v: provisional, o: others may wait for it in another way),
-- bot, chat, its door: n or b, send_at in ms or 0, dedup key or ''. → how many were taken
-- An id that is tracked, open, or was provisional, and is known is not taken again, nor is a second message with a dedup
-- key of the last 24 h.
local admit, waiting_messages
do -- a script has room for 200 local names
  local function put(key, elements)
    for i = 1, #elements, 1000 do
      redis.call('RPUSH', key, unpack(elements, i, math.min(i + 999, #elements)))
    end
    return #elements
  end

  local function is_new(id, marks, bot, key)
    if string.find(marks, 't') and redis.call('EXISTS', status_key(id)) == 1 then return false end
    if string.find(marks, '[vo]') and open.knows(id) then return false end
    if key == '' or claim_dedup_key(bot, key, id) then return true end
    if string.find(marks, 'v') then open.keep(id, '!deduplicated') end
    return false
  end

  -- → whether it is taken, and the bot if it is bulk
  local function admit_marked(id, marks, bot, chat, door, send_at, key)
    if not is_new(id, marks, bot, key) then return false end
    if string.find(marks, '[vo]') then open.add(id) end
    if string.find(marks, 't') then open_status(id, tonumber(send_at), 'created_at', wall, 'bot', bot, 'chat', chat) end
    return true, door == 'b' and bot
  end

  function admit(first, last)
    local front, bulk = {}, {} -- elements; bulk: bot → its elements
    local accepted, i = string.format('{"accepted":%.0f,', wall), first
    while i <= last do
      local element, known = ARGV[i], ARGV[i + 1]
      local is_taken, bot = true, nil
      i = i + 2
      if known == 'b' then
        bot, i = ARGV[i], i + 1
      elseif known == 'm' then
        is_taken, bot = admit_marked(unpack(ARGV, i, i + 6))
        i = i + 7
      end
      if is_taken then
        local to = front
        if bot then
          to = bulk[bot] or {}
          bulk[bot] = to
        end
        to[#to + 1] = accepted .. element
      end
    end
    local taken = put(FRONT, front)
    for bot, elements in pairs(bulk) do
      taken = taken + put(bulk_key(bot), elements)
      redis.call('ZADD', DOORS, 'NX', now, bot)
      count('doors', #elements)
    end
    -- Nobody listens at the doors of bulk.
    if next(bulk) then ring() end
    return taken
  end

  -- All that count for what a queue takes at most. later: whether those that are for later do.
  function waiting_messages(later)
    local waiting = redis.call('LLEN', FRONT) + (later and redis.call('ZCARD', SCHEDULED) or 0)
    for _, many in ipairs(redis.call('HMGET', TOTALS, 'doors', 'laned:i', 'laned:n', 'laned:b')) do
      waiting = waiting + tonumber(many or 0)
    end
    return waiting
  end
end
