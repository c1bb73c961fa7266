-- drain: elements from the hand-off list, then from the front door, into their lanes, at most `most` of them.
-- What cannot be placed goes to the dead letters.

local drain, at_the_doors
do -- a script has room for 200 local names
  -- Bulk waits at a door of its bot until the look-ahead takes it, so that a million of it cost a list of elements.
  local LOOK_AHEAD = 1000 -- bulk messages of a bot in lanes, while any of them could be served
  local DOORS_LOOKED_AT = 10
  -- What one call reads ends with the five elements that make it a megabyte: a hundred that are as large each would keep
  -- the server from everybody for seconds.
  local AT_ONCE, MOST_BYTES = 5, 1024 * 1024
  local OPENED = 123 -- {

  -- Our own producers were asked before, by enqueue.
  local function is_second(m)
    return m.dedup_key and not m.accepted and not claim_dedup_key(m.bot, m.dedup_key, m.id)
  end

  -- An id that others may be after is taken once. Our own producers were asked before.
  local function is_known(m) return m.provisional and not m.accepted and open.knows(m.id) end

  -- → nil, or what is wrong with the element. from: the door that it came to.
  local function put_into_lane(element, default_bot, from)
    local m, wrong = read(element, default_bot)
    if not m then return wrong end
    if is_known(m) or is_second(m) then return end
    if m.opens and not m.accepted then open.add(m.id) end
    if m.tracked and redis.call('EXISTS', status_key(m.id)) == 0 then
      open_status(m.id, m.send_at, 'created_at', wall, 'bot', m.bot, 'chat', m.chat)
    end
    if m.send_at > wall then
      -- The number keeps what is due at the same time in its order, and what is pushed twice apart.
      local number = redis.call('HINCRBY', TOTALS, 'ids', 1)
      redis.call('ZADD', SCHEDULED, m.send_at, string.format('%016d ', number) .. marked(m))
    elseif m.priority == 'b' and from ~= DOORS then
      redis.call('RPUSH', bulk_key(m.bot), marked(m))
      redis.call('ZADD', DOORS, 'NX', now, m.bot)
      count('doors', 1)
    else
      local lane = canonical(m.bot .. ':' .. m.chat)
      push(lane, m.priority, entry_of(m, math.max(m.accepted or wall, m.send_at), lane))
    end
  end

  -- Those that wait for one that cannot be read would wait for ever.
  local function close_unread(element)
    local ok, fields = pcall(cjson.decode, element)
    if not ok or type(fields) ~= 'table' or type(fields.id) ~= 'string' or fields.provisional ~= true then return end
    local message = { id = fields.id, open = true, provisional = true, awaited = fields.awaited == true }
    if redis.call('HEXISTS', OPEN, fields.id) == 1 then parents.note_end(message, 'dead') end
  end

  local function put_all(elements, default_bot, from, errors)
    gather_ready()
    for i = 1, #elements do
      local element = elements[i]
      if element ~= BELL then
        if string.byte(element) ~= OPENED then element = string.match(element, '^%s*(.*)$') end
        local wrong = put_into_lane(element, default_bot, from)
        if wrong then
          bury_unread(element, wrong)
          close_unread(element)
          errors[#errors + 1] = 'malformed'
          errors[#errors + 1] = wrong
        end
      end
    end
    put_ready()
  end

  -- What is due comes to the same place as what is new, at most 100 a call.
  local function take_scheduled(default_bot, errors)
    local elements = {}
    for i, member in ipairs(redis.call('ZRANGEBYSCORE', SCHEDULED, '-inf', wall, 'LIMIT', 0, 100)) do
      redis.call('ZREM', SCHEDULED, member)
      elements[i] = string.sub(member, 18)
    end
    put_all(elements, default_bot, SCHEDULED, errors)
  end

  local bytes -- of what was taken in this call

  -- Takes elements from a door until there are `most`, or they are large.
  local function take(door, most, elements)
    while #elements < most and bytes < MOST_BYTES do
      local some = redis.call('LPOP', door, math.min(AT_ONCE, most - #elements)) or {}
      for i = 1, #some do
        elements[#elements + 1] = some[i]
        bytes = bytes + #some[i]
      end
      if #some < AT_ONCE then break end
    end
    return elements
  end

  -- How many bulk messages of a bot may be taken into lanes. One chat that is over its limit holds up no other: where all
  -- that is in lanes waits for its chats, there is room for more.
  local function room_for_bulk(bot)
    local room = LOOK_AHEAD - tonumber(redis.call('HGET', LANED_BULK, bot) or 0) - (bulk_counts[bot] or 0)
    if room > 0 then return room end
    local is_any_ready = redis.call('EXISTS', ready_key('b', bot), ready_key('b', account_of(bot, true))) > 0
    return is_any_ready and 0 or LOOK_AHEAD
  end

  -- The bots' doors take turns: the one that was looked at longest ago comes first.
  local function take_bulk(most, errors)
    for _, bot in ipairs(redis.call('ZRANGE', DOORS, 0, DOORS_LOOKED_AT - 1)) do
      local elements = take(bulk_key(bot), math.min(most, room_for_bulk(bot)), {})
      put_all(elements, bot, DOORS, errors)
      most = most - #elements
      count('doors', -#elements)
      if redis.call('EXISTS', bulk_key(bot)) == 1 then
        redis.call('ZADD', DOORS, now, bot)
      else
        redis.call('ZREM', DOORS, bot)
      end
      if most <= 0 then return end
    end
  end

  local any_left
  at_start(function() bytes, any_left = 0, false end)

  function at_the_doors()
    return any_left and redis.call('LLEN', FRONT) + redis.call('LLEN', HANDOFF) or 0
  end

  -- → reason and error of each that was buried
  function drain(most, default_bot)
    -- The front door is touched only once the hand-off list is empty: what stands there came first.
    local elements = take(FRONT, most, take(HANDOFF, most, {}))
    local errors = {}
    any_left = #elements >= most or bytes >= MOST_BYTES
    take_scheduled(default_bot, errors)
    put_all(elements, default_bot, FRONT, errors)
    if #elements < most then take_bulk(most - #elements, errors) end
    return errors
  end
end
