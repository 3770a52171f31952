/// stub
pub struct Extension;
/// stub
pub struct Header;
/// stub
pub trait ExtractSession {}
