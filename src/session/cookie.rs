/// stub
pub struct Cookie;
