mod decode;
mod hostile;
mod http;
mod properties;
mod proto;
mod site;
