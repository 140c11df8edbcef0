//! PURE. What happens to one packet between the TUN and the core.
