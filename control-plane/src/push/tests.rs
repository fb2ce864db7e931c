mod decode;
mod http;
mod properties;
mod proto;
mod site;
