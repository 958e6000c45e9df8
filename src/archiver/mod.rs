//! The archiver: a node with an object store. It is given exports by a controller, carries what they show to an archive, or fills them from one.
